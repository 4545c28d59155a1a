"""Labels that people look at again: audits, verdicts, maps of training sets, and what to label next."""
