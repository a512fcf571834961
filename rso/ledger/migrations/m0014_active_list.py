"""The Active patient list: an index for each of its orders and searches, and word of changes.

Every change of an exam, hold or delivery leaves word of its facility, whoever writes it: SQLite in
a table of counters, PostgreSQL by NOTIFY.
"""

__all__ = ["POSTGRES", "SQL", "SQLITE"]

_OPEN = "status IN ('requested', 'receiving', 'settled')"
_ACTIVE = "status IN ('requested', 'receiving', 'settled', 'delivered')"
_FILTERS = "status, modality, owner"

SQL = f"""
DROP INDEX exam_due;
CREATE INDEX exam_due ON exam (priority, due_at, id, facility, {_FILTERS}) WHERE {_OPEN};
CREATE INDEX exam_due_of ON exam (facility, priority, due_at, id, {_FILTERS}) WHERE {_OPEN};
CREATE INDEX exam_made ON exam (created_at, id, facility, priority, {_FILTERS}) WHERE {_ACTIVE};
CREATE INDEX exam_made_of ON exam (facility, created_at, id, priority, {_FILTERS}) WHERE {_ACTIVE};
CREATE INDEX exam_named ON exam (name_key COLLATE BINARY, id, facility, priority, {_FILTERS}) WHERE {_ACTIVE};
CREATE INDEX exam_find_name ON exam (name_key COLLATE BINARY, id, facility, status);
CREATE INDEX exam_find_patient_id ON exam (patient_id COLLATE BINARY, id, facility, status);
CREATE INDEX exam_find_number ON exam (number COLLATE BINARY, id, facility, status);
CREATE INDEX exam_count ON exam (facility, status) WHERE {_ACTIVE};
CREATE INDEX delivery_stopped ON delivery (exam) WHERE state = 'stopped';
"""

_COUNT = """INSERT INTO facility_change (facility, revision) {values}
ON CONFLICT (facility) DO UPDATE SET revision = revision + 1"""
_OWN = _COUNT.format(values="VALUES (NEW.facility, 1)")
_OF_EXAM = _COUNT.format(values="SELECT facility, 1 FROM exam WHERE id = NEW.exam")

SQLITE = (
    "CREATE TABLE facility_change (facility VARCHAR(64) PRIMARY KEY, revision BIGINT NOT NULL)",
    *(
        f"CREATE TRIGGER {table}_{event.lower()}_changed AFTER {event} ON {table} BEGIN {word}; END"
        for table, word in (("exam", _OWN), ("hold", _OWN), ("delivery", _OF_EXAM))
        for event in ("INSERT", "UPDATE")
    ),
)

_FUNCTION = """CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_notify('rso_changed', {facility}); RETURN NULL; END $$"""

POSTGRES = (
    _FUNCTION.format(name="rso_changed", facility="NEW.facility"),
    _FUNCTION.format(
        name="rso_delivery_changed", facility="(SELECT facility FROM exam WHERE id = NEW.exam)"
    ),
    *(
        f"CREATE TRIGGER {table}_changed AFTER INSERT OR UPDATE ON {table}"
        f" FOR EACH ROW EXECUTE FUNCTION {function}()"
        for table, function in (
            ("exam", "rso_changed"),
            ("hold", "rso_changed"),
            ("delivery", "rso_delivery_changed"),
        )
    ),
)
