"""Tables that compare cross-validations which differ in a few settings."""
