# In a script, signals are the program's; a terminal keeps its shell.
case $- in *i*) run= ;; *) run=exec ;; esac
