"""The console for operators, at /ops where OPS is on: pages made on the server, which work without a script.

    routes      every address with the role that it needs; `rows` makes its rows
    gate        before and after the handlers: the session, the role, where a form comes from, and faults as pages
    visit       the request of an operator, as handlers get it; `faults` has the keys of what goes wrong
    render      pages out of `templates/`, with texts of `languages/`
    texts       the languages
    assets      the files of `static/`, named by their content
    forms       bodies of forms, with files
    signin      the page for nobody, and its limits
    me          the operator's own password, codes, sessions, language and colours
    operators   the operators, for admins
    audit       who did what
    first       /ops itself

One module holds the handlers of one family of pages.
"""
