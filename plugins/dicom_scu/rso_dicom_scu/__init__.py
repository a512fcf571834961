"""RSO sender: DICOM C-STORE SCU."""
