"""What waits on disk: updates and held spans, in one file that several processes share."""
