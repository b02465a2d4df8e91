"""Two models and the morph between them -> where they stop being one function, and why.

two models ──side──▶ Side, Side          run, watched, module by module; copies only, the models themselves never change
morph ──────plan──▶ channels ──align──▶ Alignment      which tensors inside should be equal: what their parameters say
probes × regimes ──capture──▶ Measures   every aligned tensor, elementwise, against a tolerance measured on the reference itself
Measures ──locate──▶ Suspect             the first that is over while all before it are within; injected, spliced, then the next
Suspect ──diagnose──▶ Causes             hypotheses carried out: the one that restores agreement to the floor is named
"""
