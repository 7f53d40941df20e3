package stripe_test

import (
	"testing"

	"lockstep/source/stripe"
)

func TestSpecIsValid(t *testing.T) {
	t.Parallel()
	s, err := stripe.Spec("sk_test_x")
	if err != nil {
		t.Fatal(err)
	}
	if s.Limits["account"].Rate != 25 {
		t.Errorf("test mode has rate %v", s.Limits["account"].Rate)
	}
}
