"""What stands around the experiments: tables, verdicts, the gallery, the resumable sweep."""
