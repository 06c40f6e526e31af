"""Embeddings get ids, ascending in the order of their arrival."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from clapboard.store.migrations import numbered
from clapboard.store.migrations.batches import ROWS_AT_ONCE, has_table, in_batches

revision, down_revision = numbered(__file__)

OLD = "embeddings_without_id"
KEY = "sha256, encoder_version, dtype, window_index"


def upgrade() -> None:
    """Move the embeddings to a table with ids, in batches: they may be gigabytes."""
    if not has_table(OLD):
        op.rename_table("embeddings", OLD)
        if op.get_bind().dialect.name == "postgresql":
            op.execute(f"ALTER INDEX embeddings_pkey RENAME TO {OLD}_pkey")
        op.create_table(
            "embeddings",
            sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
            sa.Column("sha256", sa.String, nullable=False),
            sa.Column("encoder_version", sa.String, nullable=False),
            sa.Column("dtype", sa.String, nullable=False),
            sa.Column("window_index", sa.Integer, nullable=False),
            sa.Column("vector", sa.LargeBinary, nullable=False),
            sqlite_autoincrement=True,
        )
        op.create_index("embeddings_by_content", "embeddings", KEY.split(", "), unique=True)
        op.create_index("embeddings_by_encoder", "embeddings", ["encoder_version", "dtype", "id"])
    in_batches("embeddings", _move, total=op.get_bind().scalar(sa.text(f"SELECT count(*) FROM {OLD}")))
    op.drop_table(OLD)


def _move(connection: sa.Connection) -> int:
    first = f"FROM {OLD} ORDER BY {KEY} LIMIT {ROWS_AT_ONCE}"
    moved = connection.exec_driver_sql(f"INSERT INTO embeddings ({KEY}, vector) SELECT {KEY}, vector {first}")
    connection.exec_driver_sql(f"DELETE FROM {OLD} WHERE ({KEY}) IN (SELECT {KEY} {first})")
    return moved.rowcount
