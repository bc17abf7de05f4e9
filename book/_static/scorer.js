// Weights of the search: a page of that title comes before the names of the package, and these before mere mentions.
var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: {0: 5, 1: 0, 2: -5},
  objPrioDefault: 0,
  title: 40,
  partialTitle: 20,
  term: 5,
  partialTerm: 2,
};
