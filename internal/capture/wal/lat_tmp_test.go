package wal
import ("testing";"time";"sort";"sync";"os";"fmt";"context"
 "github.com/jackc/pgx/v5"
 "lockstep/internal/pgdb/pgtest")
func TestLatency(t *testing.T){
 if os.Getenv("LAT")=="" {t.SkipNow()}
 url := pgtest.Database(t)
 pgtest.Exec(t, url, "CREATE TABLE a (id bigint PRIMARY KEY, v text)")
 publishTables(t,url,"a")
 log := openLog(t, t.TempDir())
 var mu sync.Mutex; var lags []time.Duration; batches:=0
 r := launchOn(t,url,log, func(c *Config,_ *tuning){ c.Observe = func(d Durable){ mu.Lock(); for range d.Changes {lags=append(lags,d.Lag)}; batches++; mu.Unlock()}})
 pgtest.Eventually(t, 20*time.Second, "x", func() bool { return r.Status().Connected })
 var rate int; fmt.Sscan(os.Getenv("LAT"),&rate)
 conn,_ := pgx.Connect(context.Background(), url); defer conn.Close(context.Background())
 c0 := cpu0()
 start := time.Now(); n := rate*4
 for i := range n { for time.Since(start) < time.Duration(i)*time.Second/time.Duration(rate) { doze(100*time.Microsecond)}
  conn.Exec(context.Background(), "INSERT INTO a VALUES ($1, $2)", i, "some text") }
 el := time.Since(start)
 pgtest.Eventually(t, 20*time.Second, "x", func() bool { mu.Lock(); defer mu.Unlock(); return len(lags)>=n })
 sort.Slice(lags, func(i,j int)bool{return lags[i]<lags[j]})
 t.Logf("rate %.0f/s batches %d p50 %v p90 %v p99 %v max %v cpu %v", float64(n)/el.Seconds(), batches, lags[n/2], lags[n*9/10], lags[n*99/100], lags[n-1], cpu0()-c0)
}
