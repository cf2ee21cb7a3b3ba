"""The claims of studies, as data: a file a study, written before its first run, read by `unsample.studies.verdicts`."""
