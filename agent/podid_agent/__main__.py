from podid_agent.cli import main

main()
