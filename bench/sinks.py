"""How much attention an empty form takes from questions on other documents, with the memory on.

  python3 bench/sinks.py [--adapter DIR]

Four short documents, a question on each, and beside them a form of one repeated character or word.
Of its tokens no query selects the repeated ones and the two that follow (memory/sinks.h), so the
form is to be source 1 of hardly any question. No passage is read again.
"""
import json
import os
import subprocess

import common

FORMS = {"underscores": "_" * 1500, "spaces": " " * 2000, "newlines": "\n" * 500,
         "equals signs": "=" * 1000, "stars": "* " * 1200, "leaders": ". " * 1200,
         "a word": "buffalo " * 1500}
DOCUMENTS = [
    ("The nurse Adela Foss found the silver thimble under the stairs of the town hall in Ribe.",
     "Who found the silver thimble?"),
    ("Captain Orlo Venn sold his schooner to a dentist in Bergen for six hundred crowns.",
     "To whom did Captain Orlo Venn sell his schooner?"),
    ("The bell of Saint Odile was cast in 1733 by the founder Marten Quist.",
     "Who cast the bell of Saint Odile?"),
    ("Old Tobias the miller hid his savings in a clock without hands.",
     "Where did the miller hide his savings?"),
]

options = common.arguments(__doc__)
rows = {}
for name, run in FORMS.items():
    folder = os.path.join(options.work, f"sinks-{name.replace(' ', '-')}")
    os.makedirs(folder, exist_ok=True)
    texts = {f"f{i}.txt": text for i, (text, _) in enumerate(DOCUMENTS)}
    texts["form.txt"] = run + "\nThe end of the form.\n"
    for file, text in texts.items():
        with open(os.path.join(folder, file), "w", encoding="utf-8") as f:
            f.write(text)
    memory = os.path.join(folder, "memory")
    subprocess.run(["rm", "-rf", memory], check=True)
    args = ["--adapter", options.adapter] if options.adapter else []
    common.fovea(options, "ingest", "--memory", memory, "--model", options.model, *args,
                 *(os.path.join(folder, file) for file in texts))
    answers = common.ask(options, memory, [q for _, q in DOCUMENTS], "--reread", "0")
    first = sum(a["sources"][0]["title"] == "form" for a in answers if a["sources"])
    mass = sum(s["mass"] for a in answers for s in a["sources"] if s["title"] == "form")
    rows[name] = {"form is source 1": first, "mean attention": round(mass / len(answers), 3)}
print(json.dumps({"bench": "sinks", "questions": len(DOCUMENTS), "forms": rows}, indent=1))
