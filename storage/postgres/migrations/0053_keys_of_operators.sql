-- The operator whose API key it is: two keys of one person are one person.

ALTER TABLE api_keys ADD COLUMN operator text REFERENCES operators (name);
COMMENT ON COLUMN api_keys.operator IS 'what the key does this operator does, and it ends with the operator; NULL: nobody''s';
COMMENT ON COLUMN audit.action IS 'a name of core.act_names; in rows of earlier releases the words of a command or an operation id';
COMMENT ON COLUMN audit.by IS 'the operator, the person as they named themselves, the user of the machine, or the id of an API key of nobody';
