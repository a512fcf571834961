"""The loops: spool, intake, settle, delivery, outbox, and the supervisor that runs them."""
