"""From records to tables. Knows records only, and never imports torch."""
