<?php
// The shop's part: a line for each notification that is new, and an error on request. PHP keeps nothing between requests.
function handle(array $message): void
{
    if (file_exists(getenv('FAIL'))) {
        throw new RuntimeException('the database is away');
    }
    $effects = getenv('EFFECTS');
    $line = "{$message['data']['order_no']} {$message['data']['version']}\n";
    if (!file_exists($effects) || !str_contains(file_get_contents($effects), $line)) {
        file_put_contents($effects, $line, FILE_APPEND);
    }
}
