#include "texts/facts.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

namespace fovea::texts {
namespace {

// Parts by letter: N a person, T a thing with a quality, P a place, D digits, C a code, Y a year,
// W day of the week, M month, J a trade, A what a person has a number of, F what a person likes or
// has, X one word. A template names part i by {i}.
struct Kind {
  std::string_view parts;
  std::string_view sentence;
  std::string_view question;
  std::string_view answer;
};

constexpr Kind kKinds[] = {
    {"NAD", "The {1} of {0} is {2}.", "What is the {1} of {0}?", "{2}"},
    {"NAD", "{0} was given the {1} {2}.", "Which {1} was given to {0}?", "{2}"},
    {"NTP", "{0} left the {1} in the {2}.", "Where did {0} leave the {1}?", "in the {2}"},
    {"NTP", "It was under the {2} that {0} hid the {1}.", "Where did {0} hide the {1}?",
     "under the {2}"},
    {"NFX", "The {1} of {0} is called {2}.", "What is the {1} of {0} called?", "{2}"},
    {"NFX", "{0} has {2} for a {1}.", "What does {0} have for a {1}?", "{2}"},
    {"NTND", "{0} sold the {1} to {2} for {3} crowns.", "Who bought the {1} from {0}?", "{2}"},
    {"NTND", "{0} sold the {1} to {2} for {3} crowns.", "What did {2} pay {0} for the {1}?",
     "{3} crowns"},
    {"NXMY", "{0} was born in {1} in {2} {3}.", "Where was {0} born?", "in {1}"},
    {"NXMY", "{0} was born in {1} in {2} {3}.", "When was {0} born?", "in {2} {3}"},
    {"TNY", "The {0} was made by {1} in {2}.", "Who made the {0}?", "{1}"},
    {"TNY", "The {0} was made by {1} in {2}.", "In what year was the {0} made?", "{2}"},
    {"NJX", "{0} works as a {1} in {2}.", "What does {0} work as?", "a {1}"},
    {"NJX", "{0} works as a {1} in {2}.", "In which town does {0} work?", "{2}"},
    {"TX", "The password of the {0} is {1}.", "What is the password of the {0}?", "{1}"},
    {"TD", "On the {0} the number {1} is engraved.", "What number is engraved on the {0}?", "{1}"},
    {"NWNP", "On {1} {0} met {2} at the {3}.", "Whom did {0} meet on {1}?", "{2}"},
    {"NWNP", "On {1} {0} met {2} at the {3}.", "Where did {0} meet {2}?", "at the {3}"},
    {"CC", "The entry {0} has the value {1}.", "What is the value of the entry {0}?", "{1}"},
    {"CX", "{0} = \"{1}\"", "What is {0} set to?", "{1}"},
    {"NJTN", "{0}, the {1}, gave the {2} to {3}.", "To whom did {0} give the {2}?", "{3}"},
    {"NJTN", "{0}, the {1}, gave the {2} to {3}.", "Who gave the {2} to {3}?", "{0}"},
};

std::string Fill(std::string_view pattern, const std::vector<std::string>& parts) {
  std::string text;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '{') {
      text += parts[static_cast<size_t>(pattern[i + 1] - '0')];
      i += 2;
    } else {
      text += pattern[i];
    }
  }
  return text;
}

// The parts that the question names.
std::vector<size_t> AskedParts(const Kind& kind) {
  std::vector<size_t> asked;
  for (size_t i = 0; i + 2 < kind.question.size(); ++i) {
    if (kind.question[i] == '{') asked.push_back(static_cast<size_t>(kind.question[i + 1] - '0'));
  }
  return asked;
}

Fact FactOf(size_t kind, std::vector<std::string> parts) {
  const Kind& k = kKinds[kind];
  Fact fact;
  fact.sentence = Fill(k.sentence, parts);
  fact.question = Fill(k.question, parts);
  fact.answer = Fill(k.answer, parts);
  fact.kind = kind;
  fact.parts = std::move(parts);
  return fact;
}

bool IsAnsweredByItself(const Fact& fact) {
  return fact.question.find(fact.answer) != std::string::npos;
}

void Complete(std::vector<std::string>* words, std::initializer_list<const char*> own) {
  constexpr size_t kEnough = 20;
  if (words->size() < kEnough) words->insert(words->end(), own.begin(), own.end());
}

template <size_t n>
std::string Of(const std::array<const char*, n>& words, Random& random) {
  return words[random.Below(n)];
}

std::string Characters(std::string_view alphabet, size_t n, Random& random) {
  std::string text;
  for (size_t i = 0; i < n; ++i) text += alphabet[random.Below(alphabet.size())];
  return text;
}

}  // namespace

FactMaker::FactMaker(const FactWords& words)
    : names_(words.names),
      things_(words.things),
      places_(words.places),
      qualities_(words.qualities) {
  Complete(&names_, {"Ada", "Bruno", "Celia", "Dario", "Edith", "Fergus", "Gerda", "Hamid", "Ines",
                     "Jonas", "Kira", "Leo", "Mona", "Nadir", "Oona", "Piet", "Rika", "Soren"});
  Complete(&things_, {"anvil", "bellows", "compass", "drum", "easel", "fiddle", "globe", "harp",
                      "inkwell", "jug", "kite", "ladle", "mitten", "oar", "plough", "quilt"});
  Complete(&places_, {"attic", "bakery", "chapel", "dairy", "forge", "granary", "hall", "inn",
                      "laundry", "mill", "orchard", "quarry", "smithy", "vault", "yard"});
  Complete(&qualities_, {"amber", "brittle", "carved", "dusty", "elegant", "faded", "gilded",
                         "heavy", "ivory", "jagged", "knotted", "lacquered", "mended", "oval"});
}

size_t FactMaker::n_kinds() { return std::size(kKinds); }

std::string FactMaker::MakePart(char kind, Random& random) const {
  switch (kind) {
    case 'N':
      return random.Of(names_) + " " + random.Of(names_);
    case 'T':
      return random.Of(qualities_) + " " + random.Of(things_);
    case 'P':
      return random.Of(places_);
    case 'D':
      return Characters("0123456789", 3 + random.Below(6), random);
    case 'C':
      return Characters("0123456789abcdef", 6 + random.Below(4), random);
    case 'Y':
      return std::to_string(1100 + random.Below(950));
    case 'W':
      return Of(
          std::array{"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"},
          random);
    case 'M':
      return Of(std::array{"January", "February", "March", "April", "May", "June", "July", "August",
                           "September", "October", "November", "December"},
                random);
    case 'J':
      return Of(
          std::array{"baker",    "brewer",  "clerk",   "cooper",  "cutler", "dyer",   "ferryman",
                     "gardener", "glazier", "joiner",  "mason",   "miller", "notary", "painter",
                     "pilot",    "printer", "saddler", "surgeon", "tailor", "weaver"},
          random);
    case 'A':
      return Of(std::array{"locker number", "passport number", "room number", "pass key",
                           "telephone number", "membership number", "seat number", "pin code",
                           "parcel number", "house number", "invoice number", "licence number"},
                random);
    case 'F':
      return Of(
          std::array{"dog", "ship", "horse", "favourite song", "eldest son", "best friend",
                     "favourite dish", "nickname", "teacher", "farm", "rival", "patron saint"},
          random);
    default:  // one word of any kind
      switch (random.Below(4)) {
        case 0:
          return random.Of(things_);
        case 1:
          return random.Of(qualities_);
        default:
          return random.Of(names_);
      }
  }
}

Fact FactMaker::Make(Random& random) const {
  const size_t kind = random.Below(std::size(kKinds));
  for (;;) {
    std::vector<std::string> parts;
    for (const char part : kKinds[kind].parts) parts.push_back(MakePart(part, random));
    Fact fact = FactOf(kind, std::move(parts));
    if (!IsAnsweredByItself(fact)) return fact;
  }
}

Fact FactMaker::MakeLike(const Fact& fact, Random& random) const {
  const Kind& kind = kKinds[fact.kind];
  const std::vector<size_t> asked = AskedParts(kind);
  const size_t changed = asked[random.Below(asked.size())];
  std::vector<std::string> parts = fact.parts;
  for (size_t i = 0; i < parts.size(); ++i) {
    const bool is_asked = std::find(asked.begin(), asked.end(), i) != asked.end();
    if (is_asked && i != changed) continue;
    // Of two words one stays, of a number or code all but one character.
    std::string other = parts[i];
    const size_t space = other.find(' ');
    while (other == parts[i]) {
      other = MakePart(kind.parts[i], random);
      if (i != changed) continue;
      const char part = kind.parts[i];
      if ((part == 'N' || part == 'T') && other.find(' ') != std::string::npos) {
        const size_t cut = other.find(' ');
        other = random.Chance(0.5) ? parts[i].substr(0, space) + other.substr(cut)
                                   : other.substr(0, cut) + parts[i].substr(space);
      } else if (part == 'C') {
        std::string near = parts[i];
        near[random.Below(near.size())] = other[0];
        other = near;
      }
    }
    parts[i] = std::move(other);
  }
  return FactOf(fact.kind, std::move(parts));
}

}  // namespace fovea::texts
