package sandbox

import (
	"strconv"
	"strings"
)

// Person is somebody who does not exist. Mail addresses end in .example and numbers
// are from ranges kept for fiction.
type Person struct {
	First, Last, Login, Email, Phone string
	Company                          string // "" for some
	Street, City, Postcode, Country  string // Country as ISO 3166 alpha-2
}

// Person makes somebody up. n makes Login and Email unique.
func (d *Dice) Person(n uint64) Person {
	p := Person{First: d.Pick(firstNames()...), Last: d.Pick(lastNames()...)}
	number := strconv.FormatUint(n, 10)
	p.Login = plain(p.First) + "-" + plain(p.Last) + number
	p.Email = plain(p.First) + "." + plain(p.Last) + "+" + number + "@" + d.Pick("mail", "post", "inbox", "letters") + ".example"
	p.Phone = "+1555010" + strconv.Itoa(d.Between(1000, 9999))[1:] + strconv.Itoa(d.Int(10))
	if d.Chance(0.4) {
		p.Company = d.Company()
	}
	place := places()[d.Int(len(places()))]
	p.City, p.Country = place[0], place[1]
	p.Postcode = strconv.Itoa(d.Between(10000, 99999))
	p.Street = strconv.Itoa(d.Between(1, 240)) + " " + d.Pick("Mill", "Station", "Harbour", "Church", "Garden", "Bridge", "Market") + " " + d.Pick("Street", "Road", "Lane")
	return p
}

// Company makes up the name of a firm.
func (d *Dice) Company() string {
	return d.Pick("Northwind", "Bluebird", "Oak & Ash", "Ferrous", "Kestrel", "Lumen", "Quarry", "Saltmarsh", "Tideline", "Verdant", "Wren", "Zephyr") + " " +
		d.Pick("Labs", "Foods", "Logistics", "Studio", "Systems", "Trading", "Works", "& Sons")
}

// Thing makes up the name of something one can buy.
func (d *Dice) Thing() string {
	return d.Pick("Amber", "Brisk", "Calm", "Deep", "Early", "Faint", "Grand", "Hollow", "Ivory", "Quiet", "Rapid", "Silver") + " " +
		d.Pick("Lamp", "Chair", "Notebook", "Kettle", "Bicycle", "Radio", "Clock", "Garden", "Plan", "Membership", "Archive", "Compass")
}

// Sentence makes up a line of text, of n words.
func (d *Dice) Sentence(n int) string {
	words := make([]string, n)
	for i := range words {
		words[i] = d.Pick("when", "the", "clock", "is", "behind", "a", "page", "returns", "early", "and", "nobody", "reads", "it", "again", "retry", "after",
			"cursor", "moves", "once", "more", "two", "lists", "agree", "slowly", "café", "naïve", "日本", "✓")
	}
	return d.Pick("The", "A", "One", "No", "Every") + " " + strings.Join(words, " ")
}

func firstNames() []string {
	return []string{"Ana", "Ben", "Chloé", "David", "Elif", "Femi", "Grace", "Hiro", "Ines", "Jonas", "Kofi", "Lena", "Mateo", "Nadia", "Olga", "Pablo",
		"Quentin", "Rosa", "Søren", "Tara", "Uma", "Viktor", "Wanda", "Xin", "Yusuf", "Zoë"}
}

func lastNames() []string {
	return []string{"Abara", "Bauer", "Castillo", "Dupont", "Eriksson", "Fischer", "García", "Haddad", "Ivanov", "Jansen", "Kowalski", "Lindqvist", "Müller",
		"Nakamura", "O'Brien", "Petrov", "Quispe", "Rossi", "Sato", "Tanaka", "Ueda", "Vargas", "Weiss", "Young", "Zhang"}
}

func places() [][2]string {
	return [][2]string{{"Bern", "CH"}, {"Lyon", "FR"}, {"Porto", "PT"}, {"Austin", "US"}, {"Leeds", "GB"}, {"Kraków", "PL"}, {"Nagoya", "JP"}, {"Accra", "GH"},
		{"Córdoba", "AR"}, {"Tampere", "FI"}, {"Gent", "BE"}, {"Malmö", "SE"}}
}

// plain keeps the ASCII letters of a name, in lower case.
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		if r < 'a' || r > 'z' {
			return -1
		}
		return r
	}, strings.ToLower(name))
}
