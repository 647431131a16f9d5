"""Internal: protocol rules as pure state machines: they take bytes or frames and return messages.

No clock, no socket, no thread. Everything here can be tested by feeding it recorded bytes.
"""
