"""A plan.json carried out in shares: by any number of tasks, on any number of machines that see one folder.

plan.json ──shares──▶ files of the targets, balanced by bytes ──part──▶ the sources and the proof that one file needs
          ──run──▶ each written, verified, hashed, named, recorded ──finish──▶ all records checked, the target gets its name
"""
