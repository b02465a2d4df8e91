"""Value operators: result dtype, class, inverse, kernel; and, in `reference`, a plain second reading of each for verify.

    Op (language tree, plain data) ──registry.build──▶ Operator ──apply──▶ array

No operator looks at a layout: operators act on elements, after the axes are arranged.
"""
