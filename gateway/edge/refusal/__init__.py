"""A refusal as it is told: why, until when, and how one may pay."""
