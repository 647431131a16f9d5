"""Create Letta's tables in an empty PostgreSQL database.

It is run by the *server's* interpreter: ``python create_schema.py postgresql+psycopg2:///…``. The
wheel contains no migrations, so the tables come from the ORM itself. Two things that the ORM leaves
to the migrations are added: the vector extension, and the sequence that numbers messages.
"""
# mypy: ignore-errors

import sys

import letta.orm  # noqa: F401  # registers every table
from letta.orm.base import Base
from sqlalchemy import create_engine, text

if __name__ == "__main__":
    engine = create_engine(sys.argv[1])
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
        Base.metadata.create_all(connection)
        connection.execute(text("CREATE SEQUENCE message_seq_id OWNED BY messages.sequence_id"))
        connection.execute(
            text(
                "ALTER TABLE messages ALTER COLUMN sequence_id"
                " SET DEFAULT nextval('message_seq_id')"
            )
        )
