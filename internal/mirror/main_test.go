package mirror_test

import (
	"testing"

	"go.uber.org/goleak"

	"lockstep/internal/pgdb/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Suite{M: m}) }
