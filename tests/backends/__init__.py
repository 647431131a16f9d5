"""Tests of where agents live."""
