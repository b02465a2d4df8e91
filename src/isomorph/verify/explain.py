"""x"""
def explain(run, report):
    pass
