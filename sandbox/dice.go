package sandbox

import (
	"math/bits"
	"strings"
)

// Seed is what a world is made from: the same seed and steps make the same world.
type Seed uint64

// Dice is a row of numbers that look random. The zero value is a valid one. Not for
// concurrent use; it is small, so make one per record.
type Dice struct{ state uint64 }

// Dice returns the dice of one record: its kind and number decide all that they show,
// so that a record can be made anew whenever it is asked for.
func (s Seed) Dice(kind string, n uint64) Dice {
	return Dice{mix(uint64(s)^hash(kind)) + n*0x9e3779b97f4a7c15}
}

// Uint64 returns the next number (splitmix64).
func (d *Dice) Uint64() uint64 {
	d.state += 0x9e3779b97f4a7c15
	return mix(d.state)
}

// Int returns a number from 0 to n-1; n must be positive.
func (d *Dice) Int(n int) int {
	high, _ := bits.Mul64(d.Uint64(), uint64(n))
	return int(high)
}

// Between returns a number from low to high, both included.
func (d *Dice) Between(low, high int) int { return low + d.Int(high-low+1) }

// Chance returns true with probability p.
func (d *Dice) Chance(p float64) bool { return float64(d.Uint64()>>11)/(1<<53) < p }

// Pick returns one of the choices.
func (d *Dice) Pick(choices ...string) string { return choices[d.Int(len(choices))] }

// Text returns n letters and digits.
func (d *Dice) Text(n int) string {
	var b strings.Builder
	for range n {
		b.WriteByte(digits[d.Int(len(digits))])
	}
	return b.String()
}

const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// codeLength is how many letters and digits hold any 64-bit number.
const codeLength = 11

// Code turns the number of a record into letters and digits that look random, length
// of them, at least 14; Number turns them back. So a world needs no table of ids.
func (s Seed) Code(kind string, n uint64, length int) string {
	scrambled := mix(n ^ uint64(s) ^ hash(kind))
	check := mix(scrambled ^ hash(kind)*31 ^ uint64(s)<<1)
	out := make([]byte, length)
	for i := range out {
		from := &scrambled
		if i < length-codeLength {
			from = &check
		}
		out[i] = digits[*from%62]
		*from /= 62
	}
	return string(out)
}

// Number returns the number that Code made these characters from, and whether it did.
func (s Seed) Number(kind, code string) (uint64, bool) {
	if len(code) < 14 {
		return 0, false
	}
	scrambled := uint64(0)
	for i := len(code) - 1; i >= len(code)-codeLength; i-- {
		d := strings.IndexByte(digits, code[i])
		if d < 0 {
			return 0, false
		}
		scrambled = scrambled*62 + uint64(d)
	}
	n := unmix(scrambled) ^ uint64(s) ^ hash(kind)
	return n, s.Code(kind, n, len(code)) == code
}

// mix is the finaliser of splitmix64, a permutation; unmix undoes it.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func unmix(z uint64) uint64 {
	z = (z ^ z>>31 ^ z>>62) * 0x319642b2d24d8ec3
	z = (z ^ z>>27 ^ z>>54) * 0x96de1b173f119089
	return z ^ z>>30 ^ z>>60
}

// hash is FNV-1a.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}
