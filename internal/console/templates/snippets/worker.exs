# next → work → ack, until you stop it: elixir worker.exs
Mix.install([{:req, "~> 0.5"}])

defmodule Worker do
  @queue "{{.Queue}}"

  # Your own code. Raise, and the change comes again, ever later.
  # It may come twice: its idempotency_key is the same then.
  def work(change) do
    IO.inspect({change["action"], change["metadata"]["table_name"], change["record"]})
  end

  def run do
    case call("next", %{batch_size: 100, wait_for: "20s"}) do
      {:ok, %{"data" => changes}} ->
        handle(changes)

      {:error, reason} ->
        IO.puts(:stderr, "next: #{reason}; trying again soon")
        Process.sleep(2_000)
    end

    run()
  end

  defp handle(changes) do
    # The later ones of a row must not overtake one that failed: all behind it go back.
    {done, rest} = Enum.split_while(changes, &worked?/1)
    settle("ack", done, %{})

    case rest do
      [] ->
        :ok

      [failed | later] ->
        settle("nack", [failed], %{reason: "work failed"})
        settle("nack", later, %{release: true})
    end
  end

  defp worked?(change) do
    work(change)
    true
  rescue
    error ->
      IO.puts(:stderr, "seq #{change["metadata"]["seq"]}: #{Exception.message(error)}")
      false
  end

  defp settle(_verb, [], _more), do: :ok

  defp settle(verb, changes, more) do
    case call(verb, Map.put(more, :ack_tokens, Enum.map(changes, & &1["ack_token"]))) do
      {:ok, _} -> :ok
      {:error, reason} -> IO.puts(:stderr, "#{verb}: #{reason}; the changes come again")
    end
  end

  defp call(verb, body) do
    token = System.get_env("LOCKSTEP_TOKEN", "")
    options = [json: body, auth: {:bearer, token}, receive_timeout: 60_000, retry: false]

    case Req.post("#{@queue}/#{verb}", options) do
      {:ok, %{status: status, body: body}} when status in 200..299 -> {:ok, body}
      {:ok, %{status: status, body: body}} -> {:error, "HTTP #{status} #{inspect(body)}"}
      {:error, error} -> {:error, Exception.message(error)}
    end
  end
end

Worker.run()
