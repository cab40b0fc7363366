# Loaded when something is completed: asked from the program, so that it fits it.
eval "$(btw-backup completions bash)"
