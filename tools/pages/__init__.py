"""Make and check the documentation: the API reference, pages made from the source, and links."""
