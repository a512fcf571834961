"""Filters that fit few exams are found from the filter's side, and a facility's newest exams first.

State and priority have few values and are always named, all of them if need be, so that the
column behind them is looked up and not searched for. The condition is always so; it keeps the
indexes from statements that do not say it, which want an order and not what fits.
"""

__all__ = ["SQL"]

SQL = """
CREATE INDEX exam_fits ON exam (status, priority, modality, owner, facility) WHERE number <> '';
CREATE INDEX exam_fits_owner ON exam (owner, status, priority, modality, facility) WHERE number <> '';
CREATE INDEX exam_fits_facility ON exam (facility, status, priority, modality, owner) WHERE number <> '';
CREATE INDEX exam_newest_of ON exam (facility, id, status, priority) WHERE number <> '';
"""
