"""Internal: the places where agents live, behind one protocol (``backends.base``)."""
