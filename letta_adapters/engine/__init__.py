"""Protocol rules as pure state machines: bytes or frames in, messages out.

No clock, no socket, no thread. Everything here can be tested by feeding it recorded bytes.
"""
