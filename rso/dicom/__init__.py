"""DICOM on the wire and on disk."""
