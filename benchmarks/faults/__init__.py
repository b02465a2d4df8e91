"""The fault benchmark: ports with one planted fault each, and what a trace says of them.

hook.py      Faults: what is wrong in a candidate, and where; its code asks at the exact place
parts.py     what the candidates are made of: own formulas, in another order of summation than the reference's
clip.py …    one candidate a family, in another style than the reference's, with its own names and the morph that fills it
families.py  a family: reference, candidate, morph, inputs, weights as of a trained model
planted.py   Fault, and what a planted one is: reference, candidate, morph, state
faults_*.py  the faults, family by family
gates.py     the usual gates, on the same faults
score.py     detected, located, diagnosed, false alarms
"""
