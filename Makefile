# Every verb does the set-up that it needs, in .venv; `make help` lists them.
# PYTHON=python3.12 chooses the interpreter of a new environment, JOBS=4 the parallel workers of the tests.
PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2
DRAWS  ?= 20
CHROME ?= $(firstword $(shell which chromium chromium-browser google-chrome 2>/dev/null))
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help book test pages serve lab pdf slides lint stamp student assignments grade timings replicate portability picture clean

help:  ## list the verbs
	@sed -nE 's/^([a-z]+):.*## (.*)/\1 \2/p' $(MAKEFILE_LIST) | \
	while read -r verb text; do printf '  make %-11s %s\n' "$$verb" "$$text"; done

# One thread: on two shared cores the small networks of the chapters are faster than with two.
# --all: every page is read again, so a warning does not vanish because its page is unchanged; results are cached.
book: $(VENV)/.installed  ## build the book into _build/html; open _build/html/index.html
	OMP_NUM_THREADS=1 $(BIN)/jupyter-book build . --all -W -n --keep-going
	$(BIN)/python tools/check_book.py

# One thread a worker: two workers of two threads each would fight for two cores.
test: $(VENV)/.installed  ## run the tests of the package, of the project and of every notebook, offline
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# axe-core, the first screen, phones, weight: some seconds a page.
pages: book  ## check the pages of the book in Chromium or Chrome, in light and dark, and as wide as a phone
	$(BIN)/python tools/check_pages.py

serve: book  ## build the book and serve it at http://localhost:8000, with full search
	$(BIN)/python -m http.server --bind localhost --directory _build/html 8000

# What the book was built with is shown; a chapter that was not built since its last change is run first.
slides: $(VENV)/.installed  ## make slides of the chapters in _build/slides, which need no network
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.slides

lab: $(VENV)/.installed  ## open the chapters in JupyterLab, to run and change them
	$(BIN)/jupyter lab notebooks

# The one page of singlehtml names its pictures as from the folder above its own, so it is moved there.
# No sandbox: the page is ours, and Chromium does without it as root, as in a container.
pdf: $(VENV)/.installed  ## print the book into _build/book.pdf, with Chromium or Chrome
	@test -n "$(CHROME)" || { echo 'make pdf needs Chromium or Chrome; CHROME=PATH says where it is'; exit 1; }
	OMP_NUM_THREADS=1 $(BIN)/jupyter-book build . --builder singlehtml
	mv _build/singlehtml/book/index.html _build/singlehtml/book.html
	"$(CHROME)" --headless --no-sandbox --disable-gpu --virtual-time-budget=300000 --no-pdf-header-footer \
	  --print-to-pdf=_build/book.pdf "file://$(CURDIR)/_build/singlehtml/book.html"

lint: $(VENV)/.installed  ## put code and notebooks into the common format, and report what cannot be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

stamp: $(VENV)/.installed  ## carry the address in _config.yml everywhere; strip and complete the notebooks
	$(BIN)/python tools/stamp.py

student: $(VENV)/.installed  ## make the chapters without their solutions, in _build/student
	$(BIN)/python tools/student.py

# SEED=2027 draws the data of the hidden tests again as they were drawn by that number.
assignments: $(VENV)/.installed  ## make student editions and autograders of the assignments, in _build/assignments
	$(BIN)/python tools/assignments.py build $(if $(SEED),--seed $(SEED))

# For example: make grade ASSIGNMENT=2_em_from_scratch SUBMISSIONS=~/handed_in
grade: $(VENV)/.installed  ## grade the notebooks of a folder, SUBMISSIONS, to an ASSIGNMENT; grades.csv and words
	$(BIN)/python tools/assignments.py grade --jobs $(JOBS) $(ASSIGNMENT) $(SUBMISSIONS)

timings: $(VENV)/.installed  ## run each chapter alone; print its seconds and its peak memory
	$(BIN)/python tools/timings.py

replicate: $(VENV)/.installed  ## run every claim of the chapters on DRAWS fresh draws; count how often it holds
	$(BIN)/python tools/replicate.py --draws $(DRAWS) --jobs $(JOBS)

# SETTINGS="oldest colab" runs some of them; each takes as long as the tests of the package, the first time
# after a few minutes, and a few GB, for its environment.
portability: $(VENV)/.installed  ## run the tests of the package as other processors and other versions would
	$(BIN)/python tools/portability.py --jobs $(JOBS) $(SETTINGS)

picture: $(VENV)/.installed  ## draw the picture of the welcome page and the drawings of the chapters anew
	$(BIN)/python tools/welcome.py
	$(BIN)/python tools/drawings.py

clean:  ## remove the built book and the caches, but not the environments
	rm -rf _build .pytest_cache .ruff_cache */.ruff_cache

$(VENV)/.installed: pyproject.toml
	@echo 'Setting up $(VENV), once: a few minutes, and a few GB for torch.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --editable '.[book,imagenet,test]'
	touch $@
