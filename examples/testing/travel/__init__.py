"""A travel agency: one small LangChain application, one small LlamaIndex application."""
