"""The frames of recordings in projects with controls about regions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from clapboard.store.migrations import numbered

revision, down_revision = numbered(__file__)


def upgrade() -> None:
    """They are made from the audio as jobs need them."""
    op.create_table(
        "frames",
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("encoder_version", sa.String, nullable=False),
        sa.Column("dtype", sa.String, nullable=False),
        sa.Column("piece_index", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("frame_s", sa.Float, nullable=False),
        sa.Column("first_frame", sa.Integer, nullable=False),
        sa.Column("vectors", sa.LargeBinary, nullable=False),
        sa.Column("levels", sa.LargeBinary, nullable=False),
        sa.Column("start_s", sa.Float, nullable=False),
        sa.Column("end_s", sa.Float, nullable=False),
        sa.Column("window_vector", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("sha256", "encoder_version", "dtype", "piece_index"),
    )
