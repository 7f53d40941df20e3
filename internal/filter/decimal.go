package filter

import (
	"cmp"
	"encoding/json"
	"errors"
	"math/big"
	"strconv"
	"strings"
)

// decimal is a number as its text tells it: int.frac × 10^exp. Comparing two of
// them looks at digits only, so that 1e999999999 costs what 1 costs.
type decimal struct {
	kind      special
	negative  bool
	int, frac string
	exp       int64
}

type special int8

// The special values in their order, that of Postgres: NaN is above all.
const (
	minusInfinity special = iota - 1
	finite
	plusInfinity
	notANumber
)

// parseDecimal reads a number as Postgres and JSON write it. Others, such as
// 007 or +1 or .5, are text: a code with leading zeros is not to equal a number.
func parseDecimal(text string) (decimal, bool) {
	switch text {
	case "NaN":
		return decimal{kind: notANumber}, true
	case "Infinity":
		return decimal{kind: plusInfinity}, true
	case "-Infinity":
		return decimal{kind: minusInfinity}, true
	}
	var d decimal
	text, d.negative = strings.CutPrefix(text, "-")
	d.int, text = cutDigits(text)
	if d.int == "" || len(d.int) > 1 && d.int[0] == '0' {
		return d, false
	}
	if rest, ok := strings.CutPrefix(text, "."); ok {
		if d.frac, text = cutDigits(rest); d.frac == "" {
			return d, false
		}
	}
	if text == "" {
		return d, true
	}
	if text[0] != 'e' && text[0] != 'E' {
		return d, false
	}
	// Exponents of more digits would be compared wrongly in 64 bits.
	const maxExponent = 15
	if len(text) > maxExponent {
		return d, false
	}
	exp, err := strconv.ParseInt(text[1:], 10, 64)
	d.exp = exp
	return d, err == nil
}

func cutDigits(s string) (digits, rest string) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return s[:i], s[i:]
}

// decimalOf returns the number that v is or, as a string, spells.
func decimalOf(v any) (decimal, bool) {
	switch v := v.(type) {
	case int:
		s := strconv.Itoa(v)
		digits, negative := strings.CutPrefix(s, "-")
		return decimal{negative: negative, int: digits}, true
	case json.Number:
		return parseDecimal(string(v))
	case string:
		return parseDecimal(v)
	}
	return decimal{}, false
}

// digits is a number's significant digits, and where the point stands: before
// the first one when exp is 0.
type digits struct {
	int, frac string
	exp       int64
}

func (d decimal) digits() digits {
	s := digits{int: strings.TrimLeft(d.int, "0"), frac: d.frac}
	s.exp = int64(len(s.int)) + d.exp
	if s.int == "" {
		s.frac = strings.TrimLeft(d.frac, "0")
		s.exp -= int64(len(d.frac) - len(s.frac))
	}
	return s
}

func (s digits) len() int { return len(s.int) + len(s.frac) }

func (s digits) at(i int) byte {
	if i < len(s.int) {
		return s.int[i]
	}
	if i -= len(s.int); i < len(s.frac) {
		return s.frac[i]
	}
	return '0'
}

// compare returns -1, 0 or 1. It is exact and allocates nothing.
func (d decimal) compare(o decimal) int {
	if d.kind != finite || o.kind != finite {
		return cmp.Compare(d.kind, o.kind)
	}
	a, b := d.digits(), o.digits()
	aSign, bSign := sign(d, a), sign(o, b)
	if aSign != bSign || aSign == 0 {
		return cmp.Compare(aSign, bSign)
	}
	if a.exp != b.exp {
		return aSign * cmp.Compare(a.exp, b.exp)
	}
	for i := range max(a.len(), b.len()) {
		if x, y := a.at(i), b.at(i); x != y {
			return aSign * cmp.Compare(x, y)
		}
	}
	return 0
}

func sign(d decimal, s digits) int {
	for i := range s.len() {
		if s.at(i) == '0' {
			continue
		}
		if d.negative {
			return -1
		}
		return 1
	}
	return 0
}

var (
	errSpecial   = errors.New("NaN and Infinity cannot be calculated with")
	errBigNumber = errors.New("the number has too many digits to calculate with")
	errZero      = errors.New("division by zero")
)

// maxDigits bounds the digits of numbers that are calculated with, on both sides
// of the point.
const maxDigits = 20_000

// fixed is unscaled / 10^scale, with scale >= 0.
type fixed struct {
	unscaled *big.Int
	scale    int
}

func (d decimal) fixed() (fixed, error) {
	if d.kind != finite {
		return fixed{}, errSpecial
	}
	if int64(len(d.int)+len(d.frac))+max(d.exp, -d.exp) > maxDigits {
		return fixed{}, errBigNumber
	}
	n, ok := new(big.Int).SetString(d.int+d.frac, 10)
	if !ok {
		return fixed{}, errBigNumber
	}
	if d.negative {
		n.Neg(n)
	}
	f := fixed{n, len(d.frac) - int(d.exp)}
	if f.scale < 0 {
		f = f.rescale(0)
	}
	return f, nil
}

// rescale returns the same number with a scale that is not below its own.
func (f fixed) rescale(scale int) fixed {
	if scale == f.scale {
		return f
	}
	return fixed{new(big.Int).Mul(f.unscaled, pow10(scale-f.scale)), scale}
}

func pow10(n int) *big.Int {
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
}

// value returns the number as a value of the language: an int where it is one.
func (f fixed) value() any {
	if f.scale == 0 && f.unscaled.IsInt64() {
		return int(f.unscaled.Int64())
	}
	s := new(big.Int).Abs(f.unscaled).String()
	if f.scale > 0 {
		if missing := f.scale + 1 - len(s); missing > 0 {
			s = strings.Repeat("0", missing) + s
		}
		s = s[:len(s)-f.scale] + "." + s[len(s)-f.scale:]
	}
	if f.unscaled.Sign() < 0 {
		s = "-" + s
	}
	return json.Number(s)
}

// add, sub and mul are exact; the scale of the result is Postgres'.
func (f fixed) add(o fixed) fixed {
	scale := max(f.scale, o.scale)
	return fixed{new(big.Int).Add(f.rescale(scale).unscaled, o.rescale(scale).unscaled), scale}
}

func (f fixed) sub(o fixed) fixed {
	return f.add(fixed{new(big.Int).Neg(o.unscaled), o.scale})
}

func (f fixed) mul(o fixed) fixed {
	return fixed{new(big.Int).Mul(f.unscaled, o.unscaled), f.scale + o.scale}
}

// quoDigits is how many digits a quotient has at least that does not end.
const quoDigits = 34

func (f fixed) quo(o fixed) (fixed, error) {
	if o.unscaled.Sign() == 0 {
		return fixed{}, errZero
	}
	shift := max(quoDigits+digitsOf(o.unscaled)-digitsOf(f.unscaled), o.scale-f.scale, 0)
	rest := new(big.Int)
	q, _ := new(big.Int).QuoRem(new(big.Int).Mul(f.unscaled, pow10(shift)), o.unscaled, rest)
	// Half away from zero, as Postgres rounds.
	if rest.Lsh(rest, 1).CmpAbs(o.unscaled) >= 0 {
		q.Add(q, big.NewInt(int64(f.unscaled.Sign()*o.unscaled.Sign())))
	}
	return fixed{q, f.scale + shift - o.scale}.trim(), nil
}

func digitsOf(n *big.Int) int {
	return len(strings.TrimPrefix(n.String(), "-"))
}

// rem has the sign of f, as in Postgres and Go.
func (f fixed) rem(o fixed) (fixed, error) {
	if o.unscaled.Sign() == 0 {
		return fixed{}, errZero
	}
	scale := max(f.scale, o.scale)
	return fixed{new(big.Int).Rem(f.rescale(scale).unscaled, o.rescale(scale).unscaled), scale}, nil
}

// trim drops zeros at the end of the fraction.
func (f fixed) trim() fixed {
	if f.unscaled.Sign() == 0 {
		return fixed{f.unscaled, 0}
	}
	s := f.unscaled.String()
	drop := min(len(s)-len(strings.TrimRight(s, "0")), f.scale)
	if drop == 0 {
		return f
	}
	return fixed{new(big.Int).Quo(f.unscaled, pow10(drop)), f.scale - drop}
}

// rounding is a way to drop digits.
type rounding int8

const (
	roundHalf rounding = iota // to the nearest, halves away from zero
	roundDown                 // towards minus infinity
	roundUp                   // towards infinity
	roundZero                 // towards zero
)

// round returns the number with that many digits after the point, or fewer when
// it has no more.
func (f fixed) round(scale int, way rounding) fixed {
	if scale >= f.scale {
		return f
	}
	unit := pow10(f.scale - scale)
	rest := new(big.Int)
	q, _ := new(big.Int).QuoRem(f.unscaled, unit, rest)
	away := false
	switch way {
	case roundHalf:
		away = new(big.Int).Lsh(rest, 1).CmpAbs(unit) >= 0
	case roundDown:
		away = rest.Sign() < 0
	case roundUp:
		away = rest.Sign() > 0
	case roundZero:
	}
	if away {
		q.Add(q, big.NewInt(int64(f.unscaled.Sign())))
	}
	return fixed{q, scale}
}
