"""Options and messages that commands share."""
