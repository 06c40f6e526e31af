"""Write the next revision of the store: what clapboard/store/schema.py has and the revisions don't lead to yet.

python -m scripts.new_revision index_jobs_by_kind
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine

from clapboard.store.migrations import HEAD, VERSIONS
from clapboard.store.migrations.upgrade import upgrade
from clapboard.store.schema import clapboard_revision, metadata

CONTENT = '''"""{title}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from clapboard.store.migrations import numbered

revision, down_revision = numbered(__file__)


def upgrade() -> None:
    """TODO: what it does."""
    {operations}
'''


def new_revision(name: str) -> Path:
    """The file of the new revision, to be read and finished by hand."""
    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{folder}/clapboard.db")
        upgrade(engine)
        with engine.connect() as connection:
            options = {"compare_type": True, "version_table": clapboard_revision.name}
            context = MigrationContext.configure(connection, opts=options)
            with warnings.catch_warnings(action="ignore"):  # that indexes of expressions can't be compared
                operations = produce_migrations(context, metadata).upgrade_ops
        engine.dispose()
    assert operations is not None
    code = re.sub(r"^ *# ### .*\n?", "", render_python_code(operations), flags=re.MULTILINE).strip()
    file = VERSIONS / f"{int(HEAD) + 1:04}_{name}.py"
    file.write_text(CONTENT.format(title=name.replace("_", " ").capitalize(), operations=code), "utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", file], check=True)
    return file


if __name__ == "__main__":
    if len(sys.argv) != 2 or not re.fullmatch(r"[a-z][a-z_]+", sys.argv[1]):
        sys.exit(__doc__)
    print(new_revision(sys.argv[1]))  # noqa: T201
