"""The sans-I/O core: one function per transition builds a `Command`, which a runner sends and parses. No I/O, no clock."""
