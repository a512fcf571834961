"""Exams, matching, routing and delivery as plain functions over frozen Structs."""
