"""Triggers that count jobs and predictions as they change, so that nobody has to count them by reading them all.

A revision makes them, and so does a new store. What stands here is part of that revision: to change a trigger, write
another one in another module.

PostgreSQL's sessions each count in rows of their own, so that none waits for another; a count is a sum over `session`.
"""

from __future__ import annotations

# Refused trainings are no failures: nothing broke.
_FAILURE = (
    "CASE WHEN {row}.state = 'failed' AND NOT ({row}.kind = 'train' AND {row}.started_at IS NULL) "
    "THEN coalesce({row}.error_code, 'unknown') ELSE '' END"
)
_JOB_KEY = {
    name: f"{{row}}.{name}" for name in ("project", "queue", "kind", "model_version", "encoder", "push", "state")
} | {"failure": _FAILURE}
_PREDICTION_KEY = {name: f"{{row}}.{name}" for name in ("project", "model_version", "delivery")}


# Table, tallies, their key, and the column whose latest value is kept.
_COUNTED = (
    ("jobs", "job_tallies", _JOB_KEY, ""),
    ("predictions", "prediction_tallies", _PREDICTION_KEY, "delivered_at"),
)


def tally_triggers(dialect: str) -> list[str]:
    """The statements that make the triggers."""
    triggers, changes = (
        (_postgres, _postgres_changes) if dialect == "postgresql" else (_sqlite, [*map(_sqlite_change, _CHANGES)])
    )
    return [*(statement for counted in _COUNTED for statement in triggers(*counted)), *changes]


# What changes which contents a project has: the number of these changes is counted, too.
_CHANGES = [(table, event) for table in ("tasks", "recordings") for event in ("INSERT", "UPDATE", "DELETE")]


def _sqlite_change(change: tuple[str, str]) -> str:
    table, event = change
    return (
        f"CREATE TRIGGER {table}_{event.lower()}_noted AFTER {event} ON {table} BEGIN "
        "INSERT INTO content_changes (session, num) VALUES (0, 1) "
        "ON CONFLICT (session) DO UPDATE SET num = num + 1; END"
    )


_postgres_changes = [
    "CREATE FUNCTION note_content_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "INSERT INTO content_changes (session, num) VALUES (pg_backend_pid(), 1) "
    "ON CONFLICT (session) DO UPDATE SET num = content_changes.num + 1; RETURN NULL; END $$",
    *(
        f"CREATE TRIGGER {table}_{event.lower()}_noted AFTER {event} ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION note_content_change()"
        for table, event in _CHANGES
    ),
]


def tally_all() -> list[str]:
    """The statements that count what there is."""
    statements = []
    for table, tallies, key, last in _COUNTED:
        values = ", ".join(value.format(row=table) for value in key.values())
        places = ", ".join(str(place) for place in range(1, len(key) + 1))
        statements.append(
            f"INSERT INTO {tallies} ({', '.join(key)}, session, num{', last_at' if last else ''}) "
            f"SELECT {values}, 0, count(*){f', max({last})' if last else ''} FROM {table} GROUP BY {places}"
        )
    return statements


def _sqlite(table: str, tallies: str, key: dict[str, str], last: str) -> list[str]:
    names = ", ".join(key)

    def count(row: str, num: int) -> str:
        values = ", ".join(value.format(row=row) for value in key.values())
        last_at = f", {row}.{last}" if last else ""
        later = ", last_at = max(last_at, excluded.last_at)" if last else ""
        return (
            f"INSERT INTO {tallies} ({names}, session, num{', last_at' if last else ''}) "
            f"VALUES ({values}, 0, {num}{last_at}) "
            f"ON CONFLICT ({names}, session) DO UPDATE SET num = num + excluded.num{later};"
        )

    compared = [*key.values(), *([f"{{row}}.{last}"] if last else [])]
    old, new = (", ".join(value.format(row=row) for value in compared) for row in ("old", "new"))
    return [
        f"CREATE TRIGGER {table}_counted_in AFTER INSERT ON {table} BEGIN {count('new', 1)} END",
        f"CREATE TRIGGER {table}_counted_out AFTER DELETE ON {table} BEGIN {count('old', -1)} END",
        f"CREATE TRIGGER {table}_counted_anew AFTER UPDATE ON {table} WHEN ({old}) IS NOT ({new}) "
        f"BEGIN {count('old', -1)} {count('new', 1)} END",
    ]


def _postgres(table: str, tallies: str, key: dict[str, str], last: str) -> list[str]:
    names = ", ".join(key)
    old, new = "old_rows", "new_rows"
    events = {"in": ("INSERT", [new]), "out": ("DELETE", [old]), "anew": ("UPDATE", [old, new])}
    statements = []
    for name, (event, images) in events.items():
        changes = " UNION ALL ".join(
            f"SELECT {', '.join(f'{value.format(row=image)} AS {column}' for column, value in key.items())}, "
            f"{1 if image == new else -1} AS num{f', {image}.{last} AS last_at' if last else ''} FROM {image}"
            for image in images
        )
        kept = "" if last else " HAVING sum(num) <> 0"
        later = f", last_at = greatest({tallies}.last_at, excluded.last_at)" if last else ""
        statements.append(
            f"CREATE FUNCTION {table}_counted_{name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"INSERT INTO {tallies} ({names}, session, num{', last_at' if last else ''}) "
            f"SELECT {names}, pg_backend_pid(), sum(num){', max(last_at)' if last else ''} "
            f"FROM ({changes}) AS changed GROUP BY {names}{kept} ORDER BY {names} "
            f"ON CONFLICT ({names}, session) DO UPDATE SET num = {tallies}.num + excluded.num{later}; "
            "RETURN NULL; END $$"
        )
        tables = " ".join(f"{image[:3].upper()} TABLE AS {image}" for image in images)
        statements.append(
            f"CREATE TRIGGER {table}_counted_{name} AFTER {event} ON {table} REFERENCING {tables} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_counted_{name}()"
        )
    return statements
