-- Sentences of ours in other languages than English: beside the English text its template and values, as JSON text that
-- only the console reads. Null: written by an earlier release, by a person, or a text without values.

ALTER TABLE cases
    ADD COLUMN phrase            text,
    ADD COLUMN resolution_phrase text;
COMMENT ON COLUMN cases.phrase IS 'template and values of the detail';
COMMENT ON COLUMN cases.resolution_phrase IS 'template and values of the resolution';

ALTER TABLE reconciliation_differences ADD COLUMN phrase text;
COMMENT ON COLUMN reconciliation_differences.phrase IS 'template and values of the detail';

ALTER TABLE reconciliations ADD COLUMN error_phrase text;
COMMENT ON COLUMN reconciliations.error_phrase IS 'template and values of the last error';

ALTER TABLE statement_requests ADD COLUMN error_phrase text;
COMMENT ON COLUMN statement_requests.error_phrase IS 'template and values of the error';

ALTER TABLE alerts ADD COLUMN phrase text;
COMMENT ON COLUMN alerts.phrase IS 'template and values of the text';
