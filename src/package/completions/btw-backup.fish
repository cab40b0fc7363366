# Asked from the program, so that it fits it.
btw-backup completions fish | source
