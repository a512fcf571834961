"""The database: tables, migrations and queries, on SQLite or PostgreSQL."""
