"""The fault benchmark: ports with one planted fault each, and what a trace says of them.

hook.py      Faults: what is wrong in a candidate, and where; its code asks at the exact place
parts.py     what the torch candidates are made of: own formulas, in another order of summation than the reference's
clip.py …    one candidate a family, in another style than the reference's, with its own names and the morph that fills it
families.py  a family: reference, candidate, morph, inputs, weights as of a trained model
planted.py   Fault, and the port that it makes: reference, candidate, morph, inputs
taxonomy.py  the faults that every transformer block can have; weights.py, those that are in the weights
faults_*.py  the faults, family by family; faults.py has them all
kinds.py     which words of a trace name a fault
harness.py   faults of the comparison itself, and sound ports
gates.py     the usual gates, on the same faults
score.py     one trace -> detected, located, diagnosed; table.py prints it
"""
