"""Everything that is kept in Postgres. Orders change only through `door`; each other module is about one table."""
